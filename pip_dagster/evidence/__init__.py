"""Evidence for people outside: anchors, signed heads of the audit in places that it cannot change."""
