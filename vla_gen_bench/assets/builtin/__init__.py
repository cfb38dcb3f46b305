"""The builtin world: this package generates its meshes, images and robot, identical on every run."""
