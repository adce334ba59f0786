"""The tuned version: feature upsamplers, and the hooks that read and add skip features."""
