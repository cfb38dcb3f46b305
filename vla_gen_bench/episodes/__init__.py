"""Episodes as data: suites, scenarios, shifts, pools, draws. No simulator and no torch is imported here."""
