"""A client as vendors write them, to compare with: argparse, urllib and json."""

from __future__ import annotations

import argparse
import json
import os
import urllib.parse
import urllib.request


def main() -> None:
    """Print a page of tasks as JSON."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list")
    listing.add_argument("--limit", type=int, default=50)
    listing.add_argument("--offset", type=int, default=0)
    given = parser.parse_args()
    query = urllib.parse.urlencode({"limit": given.limit, "offset": given.offset})
    url = f"{os.environ['REBYTE_API_URL']}/tasks?{query}"
    request = urllib.request.Request(url, headers={"API_KEY": os.environ["REBYTE_API_KEY"]})
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(json.dumps(json.load(answer), indent=2))


if __name__ == "__main__":
    main()
