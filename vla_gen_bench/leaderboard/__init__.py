"""The leaderboard: entries as data, each recomputed from its evaluation log.

| module | what it does |
|---|---|
| `entry` | the fields of `leaderboard/entries/<id>.json` |
| `derive` | the facts that a log shows: counts, intervals, digests, versions |
| `submit` | a run and its author's declarations -> an entry |
| `validation` | every possible fault of an entry, one line each |
| `rank` | means over rows, ranks, and ties as a compact letter display |
| `listing` | entries as displayed |
| `board` | a leaderboard folder: reads, adds, builds |
| `sheet`, `page` | `leaderboard.csv` and the static page |
"""
