"""Runs in the new tree before it is published; what it refuses never reaches the app."""

import json
import sys

with open("pages.json") as file:
    pages = json.load(file)
if "/" not in pages:
    sys.exit("pages.json has no page /")
