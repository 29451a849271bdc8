"""The harness of lmia: grid, plan, store, engine, tracking and leaderboard. Holds no science."""
