# The platform as an image, for `--provider kubernetes`. Control, proxies and workers are processes of one command, so one
# image is all of them; a nats-server is in it, too. It runs as any user, on a read-only root, with /var/lib/stoker to write.
#
#   docker build --tag registry.example.org/stoker .
#   docker image inspect --format '{{.Size}}' registry.example.org/stoker
#
# The chart's builder needs git and a client of what builds, too, which gateways do without: docker's in the target
# `builder`, and buildctl in the target `builder-buildkit`.
#
#   docker build --target builder-buildkit --tag registry.example.org/stoker-builder .
ARG PYTHON_IMAGE=python:3.13-slim
ARG BUILDKIT_IMAGE=moby/buildkit:rootless

FROM ${PYTHON_IMAGE} AS install
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# What ours needs comes first, so that a change of ours fetches nothing anew. Left out: uv, because a platform on a cluster
# builds nothing, and the generated models of the cluster's client, which are loaded by name when they are used, as ours
# never are. Byte code goes in, because nothing can be written there later.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/stoker \
    && python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *p['optional-dependencies']['kubernetes'], sep='\n')" > needed.txt \
    && pip --python /opt/stoker install --no-compile --constraint constraints.txt --requirement needed.txt \
    && rm /opt/stoker/bin/uv /opt/stoker/bin/uvx \
    && find /opt/stoker/lib -path '*/kubernetes/*client/models/*' -name '*.py' ! -name __init__.py -delete \
    && find /opt/stoker/lib -path '*/kubernetes/*client/api/*' -name '*.py' ! -name __init__.py -delete \
    && python -m compileall -q /opt/stoker/lib
COPY README.md LICENSE ./
COPY wire wire
COPY sdk sdk
COPY watchdog watchdog
COPY gateway gateway
COPY builder builder
COPY cli cli
COPY templates templates
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/stoker install --no-deps . \
    && /opt/stoker/bin/python -c "import stoker_gateway.providers.kubernetes.connect"

FROM ${PYTHON_IMAGE} AS platform
RUN useradd --uid 10001 --create-home stoker && install -d -o stoker /var/lib/stoker
COPY --from=install /opt/stoker /opt/stoker
ENV PATH=/opt/stoker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STOKER_DATA_DIR=/var/lib/stoker

# Docker's client alone, of whichever package the release has it in; the plug-in where the client needs one to build.
FROM ${PYTHON_IMAGE} AS docker-client
WORKDIR /client
RUN apt-get update -qq \
    && { apt-get download -qq docker-cli docker-buildx || apt-get download -qq docker.io; } \
    && for package in *.deb; do dpkg-deb --extract "$package" unpacked; done \
    && install -D unpacked/usr/bin/docker docker/usr/bin/docker \
    && for plugin in unpacked/usr/libexec/docker/cli-plugins/docker-buildx; do \
         test ! -e "$plugin" || install -D "$plugin" docker/usr/libexec/docker/cli-plugins/docker-buildx; done

FROM platform AS builder
RUN apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends git \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && test -x "$(git --exec-path)/git-http-backend"
COPY --from=docker-client /client/docker /
USER 10001
EXPOSE 8084
CMD ["stoker", "pipeline", "--listen", "0.0.0.0:8084"]

FROM ${BUILDKIT_IMAGE} AS buildkit

FROM builder AS builder-buildkit
COPY --from=buildkit /usr/bin/buildctl /usr/bin/buildctl

FROM platform AS gateway
USER 10001
EXPOSE 8080 8082
CMD ["stoker", "serve", "--provider", "kubernetes", "--http", "0.0.0.0:8080", "--metrics", "0.0.0.0:8082"]
