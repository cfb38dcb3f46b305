"""Studies: training arms, their seeds, evaluations and comparisons as a declared graph, run part by part, resumably."""
