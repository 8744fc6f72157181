"""The quarantine policy: reports workers that misbehave, and treats them."""
