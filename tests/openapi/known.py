"""Prints the agent's OpenAPI document with the names of what there is in its parameters.

Made-up names lead to 404 and no further. Each parameter takes one of the names that exist, or what the document says,
so that both are tried.
"""

import json
import sys
import urllib.request

# Tried with made-up names alone: with real ones nothing would be left to try the rest on.
TAME = {"stop", "suspend", "suspendSource", "pauseSchedule", "revokeToken"}

base, token = sys.argv[1:3]


def ask(path):
    request = urllib.request.Request(base + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def items(path):
    found = ask(path)
    return found["items"] if isinstance(found, dict) else found


document = ask("/v1/openapi.json")
apps = sorted(app["app"] for app in items("/v1/apps"))
functions = sorted({one["function"] for app in apps for one in items(f"/v1/apps/{app}/functions")})
known = {
    "app": apps,
    "environment": [ask("/v1/status")["environment"]],
    "function": functions,
    "source": [one["source"] for one in items("/v1/sources")],
    "call": [one["call"] for one in items("/v1/calls")],
    "deployment": [one["id"] for app in apps for one in items(f"/v1/apps/{app}/deployments")],
    "instance": [one["instance"] for one in items("/v1/instances")],
    "channel": [one["channel"] for one in items("/v1/channels")],
}
for path in document["paths"].values():
    for operation in path.values():
        parameters = operation.get("parameters", [])
        # What is followed does not end.
        parameters[:] = [one for one in parameters if one["name"] != "follow"]
        for parameter in parameters:
            names = known.get(parameter["name"])
            if not names or operation["operationId"] in TAME:
                continue
            if parameter["in"] == "path" or parameter["name"] in ("app", "environment"):
                parameter["schema"] = {"anyOf": [{"enum": names}, parameter["schema"]]}
            if parameter["in"] == "path":
                parameter["example"] = names[0]
json.dump(document, sys.stdout)
