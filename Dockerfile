# The benchmark in a container; its steps are those of the Makefile.
#   docker build -t vgb .                        on the CPU (software Vulkan)
#   docker build -t vgb-cuda --target cuda .     NVIDIA: needs the NVIDIA container toolkit to run
#   docker run --rm -v "$PWD/runs:/work/runs" vgb eval --policy openvla-ppo --suite vision --quick
# --build-arg PIP_EXTRA_INDEX_URL=... names an index with CPU builds of torch; without, pip takes the gigabytes of CUDA.
# Slurm, without Docker on the nodes:  apptainer build vgb.sif docker-daemon:vgb:latest
#   apptainer run --bind "$PWD/runs:/work/runs" vgb.sif eval --policy openvla-ppo --suite vision --shard 1/16
FROM python:3.11-slim-bookworm AS base
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/vgb
COPY . .
ARG PIP_EXTRA_INDEX_URL
ENV VENV=/opt/venv VGB_CACHE=/opt/vgb-cache PATH=/opt/venv/bin:$PATH
RUN make setup VENV=$VENV EXTRAS=train,vla,ray && vgb assets verify builtin --json; chmod -R a+rX /opt
WORKDIR /work
ENTRYPOINT ["vgb"]
CMD ["doctor"]

# Rendering on the GPU needs the driver's Vulkan files, which the toolkit mounts for the capability "graphics".
FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics

FROM base AS cpu
