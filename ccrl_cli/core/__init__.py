"""The field's formulas as pure functions: standard library and numpy only."""
