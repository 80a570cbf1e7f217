"""Writing SQL and judging it: quoting, and what an expression over one row may be. Knows no table of ours."""
