"""The uvicorn adapter."""
