"""What is seen behind and beside a person who moves."""
