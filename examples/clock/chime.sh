#!/bin/sh
# Runs once a minute by itself, and whenever somebody says `landfall schedule run clock chime`.
# What goes to standard output is the result of the call, what goes to standard error is in the log.

echo "chime $LANDFALL_CALL of version ${LANDFALL_VERSION:-dev}" >&2
date -u +'{"chimed_at": "%H:%M:%S"}'
