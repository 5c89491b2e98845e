"""Functions as ordinary Kubernetes objects: a Deployment and a Service each (contract section 10)."""
