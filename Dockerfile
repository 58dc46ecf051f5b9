# Builds Landfall and puts it into a small image with certificates and python3 for the example apps.
#
#   docker build -t landfall .
#   docker run -p 8080:8080 -v landfall:/var/lib/landfall -v ./config:/etc/landfall landfall
#
# In the configuration: `proxy: {listen: ["0.0.0.0:8080"]}`. The agent is PID 1: it reaps and forwards signals itself.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY examples examples
COPY benches benches
COPY tests tests
COPY README.md ./
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /var/lib/landfall landfall
COPY --from=build /src/target/release/landfall /usr/local/bin/landfall
USER landfall
# `docker exec … landfall status` finds the agent here, at ./data/landfall.sock.
WORKDIR /var/lib/landfall
VOLUME /var/lib/landfall
EXPOSE 8080
# In the working directory the command finds the agent at ./data/landfall.sock.
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s CMD ["landfall", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["landfall"]
CMD ["agent", "--config", "/etc/landfall/landfall.yaml", "--data-dir", "/var/lib/landfall/data"]
