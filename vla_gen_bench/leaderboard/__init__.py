"""The leaderboard: entries as data, each recomputed from its evaluation log.

| module | what it does |
|---|---|
| `entry` | the fields of `leaderboard/entries/<id>.json` |
| `derive` | what a log says: counts, intervals, digests, versions |
| `submit` | a run and what its author declares -> an entry |
| `validation` | everything that may be wrong with an entry, one line each |
| `rank` | means over rows, ranks, and ties as a compact letter display |
| `listing` | entries as they are shown |
| `board` | a leaderboard folder: reads, adds, builds |
| `sheet`, `page` | `leaderboard.csv` and the static page |
"""
