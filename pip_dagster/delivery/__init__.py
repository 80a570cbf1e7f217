"""What is live, delivered: targets behind one contract, and the outbox that follows the live pointer."""
