"""What this machine has, holds and fetches."""
