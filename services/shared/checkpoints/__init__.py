"""Releases as files behind one URL: manifests, digests, create-if-absent."""
