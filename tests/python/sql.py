"""Runs queries by DuckDB and prints the rows of each as JSON.

    python3 sql.py QUERY…
"""

import json
import sys

import duckdb

for query in sys.argv[1:]:
    print(json.dumps(duckdb.sql(query).fetchall(), default=str))
