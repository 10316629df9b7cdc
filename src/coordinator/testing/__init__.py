"""What a test of sagas needs: time that is virtual, and processes that die."""
