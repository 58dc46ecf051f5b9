# Landfall in an image: one static program, the certificates of authorities, nothing else. See docs/image.md.
#
#   docker build -t landfall .                                            # builds the program first
#   docker buildx build --platform linux/amd64,linux/arm64 -t landfall .  # both, without emulation
#
# From a program that is there already, which takes no network and no base image:
#
#   cargo build --profile image --locked --target x86_64-unknown-linux-musl
#   image/assemble target/x86_64-unknown-linux-musl/image/landfall dist/amd64
#   docker build --build-arg BINARY=given -t landfall .
#
# It takes BuildKit (Docker 20.10 with DOCKER_BUILDKIT=1, 23 and newer by itself; Podman): the stage that is not wanted is not built.

# `built`: by this file. `given`: what lies in dist/<architecture>.
ARG BINARY=built

# On the builder's own architecture, for the one that is wanted: the Rust compiler and clang do both.
FROM --platform=$BUILDPLATFORM rust:1-bookworm AS built
ARG TARGETARCH
RUN dpkg --add-architecture "$TARGETARCH" \
    && apt-get update && apt-get install -y --no-install-recommends ca-certificates clang lld llvm "musl-dev:$TARGETARCH"
WORKDIR /src
COPY Cargo.toml Cargo.lock README.md LICENSE-APACHE LICENSE-MIT ./
COPY image image
COPY src src
COPY examples examples
COPY benches benches
COPY tests tests
RUN image/build "$TARGETARCH" && image/assemble "target/image/$TARGETARCH/landfall" /image

FROM scratch AS given
ARG TARGETARCH
COPY dist/$TARGETARCH /image

FROM ${BINARY} AS binary

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Landfall" \
      org.opencontainers.image.description="GitOps continuous deployment for machines you own" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=binary /image /
# A number, so that whoever demands it sees that it is not root. Any other does as well.
USER 65532:65532
ENV PATH=/usr/local/bin HOME=/var/lib/landfall
# In the working directory the command finds the agent at ./data/landfall.sock.
WORKDIR /var/lib/landfall
VOLUME /var/lib/landfall
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s CMD ["landfall", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["landfall"]
CMD ["agent", "--config", "/etc/landfall/landfall.yaml", "--data-dir", "/var/lib/landfall/data"]
