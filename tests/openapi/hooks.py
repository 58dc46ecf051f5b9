"""Bodies that schemathesis does not know how to write: archives of apps, JSON a line, frames."""

import io
import json
import tarfile

import schemathesis


@schemathesis.serializer("application/x-tar")
def tar(_context, value):
    """Any value as a manifest in an archive; every other one is no archive at all."""
    text = value if isinstance(value, str) else json.dumps(value)
    content = text.encode("utf-8", "surrogatepass")
    if len(content) % 2:
        return content
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("landfall.yaml")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    """A value as the line of its own, or a list as lines."""
    values = value if isinstance(value, list) else [value]
    return "".join(json.dumps(one) + "\n" for one in values).encode()


@schemathesis.serializer("application/vnd.landfall.exec")
def frames(_context, value):
    """A command that does nothing, as a frame of sort 1; every other value is no frame at all."""
    content = (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")
    if len(content) % 2:
        return content
    start = json.dumps({"command": ["true"]}).encode()
    return b"\x01" + len(start).to_bytes(4, "big") + start
