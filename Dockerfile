# Two images from one build: the inference server (the default) and the trainer's worker.
#
#   docker build -t overtone-server .
#   docker build -t overtone-trainer --target trainer .
#
# torch is the build for CPUs. For NVIDIA GPUs (Triton compiles its launchers with a C compiler
# when it first runs), by your driver's CUDA version or by an index of your own, as
# deploy/compose.cuda.yml has it:
#
#   docker build -t overtone-server \
#       --build-arg TORCH_BACKEND=cu128 \
#       --build-arg APT_PACKAGES="gcc libc6-dev" .
#   docker build -t overtone-server \
#       --build-arg TORCH_INDEX_URL=AN_INDEX_WITH_THE_BUILD_YOU_WANT .

FROM python:3.12-slim AS builder
ARG TORCH=torch==2.13.0
# What uv calls a build: cpu, cu128 …
ARG TORCH_BACKEND=cpu
# An index with the build that is wanted; then TORCH_BACKEND says nothing.
ARG TORCH_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/overtone && python -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir uv==0.13.9
ENV PATH=/opt/overtone/bin:$PATH
# torch first and by itself: it is by far the largest, and only its index depends on the device.
# Where uv's index of these builds cannot be reached, pip's own is asked: its Linux build has CUDA.
# The version stands in the argument.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=cache,target=/root/.cache/uv \
    if [ -n "$TORCH_INDEX_URL" ]; then \
        pip install --index-url "$TORCH_INDEX_URL" "$TORCH"; \
    elif ! /opt/uv/bin/uv pip install --python /opt/overtone/bin/python --link-mode copy \
            --torch-backend "$TORCH_BACKEND" "$TORCH"; then \
        echo "the index with builds of $TORCH_BACKEND cannot be used: asking pip's own index" \
        && pip install "$TORCH"; \
    fi
WORKDIR /build
COPY constraints.txt pyproject.toml ./
COPY client client
COPY adapters_core adapters_core
COPY bench bench
COPY registry registry
COPY server server
COPY trainer trainer
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ./client '.[gguf,s3,otel]'

FROM python:3.12-slim AS runtime
ARG APT_PACKAGES=""
# The packages are an argument, so no versions can stand here: those of the image's Debian release.
# hadolint ignore=DL3008
RUN if [ -n "$APT_PACKAGES" ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends $APT_PACKAGES \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && groupadd --gid 10001 overtone \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /home/overtone overtone \
    && install --directory --owner=overtone --group=overtone /data /var/cache/overtone
COPY --from=builder /opt/overtone /opt/overtone
# The code belongs to root and stays as it is. What libraries write goes to one folder, so that the
# root can be mounted read-only: /data, /var/cache/overtone and /tmp are all that is written.
ENV PATH=/opt/overtone/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/var/cache/overtone/hub \
    MPLCONFIGDIR=/var/cache/overtone/matplotlib \
    NUMBA_CACHE_DIR=/var/cache/overtone/numba \
    TRITON_CACHE_DIR=/var/cache/overtone/triton \
    OVERTONE_BASE=/opt/overtone/lib/python3.12/site-packages/trainer/demo/base \
    OVERTONE_DATA=/data \
    OVERTONE_STORE=/data/blobs
WORKDIR /data
VOLUME /data
# By numbers: Kubernetes' runAsNonRoot reads no names.
USER 10001:10001
ENTRYPOINT ["overtone"]

FROM runtime AS trainer
CMD ["worker"]

FROM runtime AS server
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
