"""A clip at twice its size: where its faces are, and the pictures with them enhanced."""
