# syntax=docker/dockerfile:1
# Feast's own image, in which `feast serve_registry` is this registry and all else is Feast's. It needs no build context:
#
#   docker build --file deploy/image/feature-server.Dockerfile --tag feast-registry-feature-server deploy/image
#
# With `--build-context registry=docker-image://NAME` it has the binary of another image of the registry.
ARG FEAST_VERSION=0.67.0
ARG VERSION=0.1.0

FROM ghcr.io/feast-registry/feast-registry:${VERSION} AS registry

FROM quay.io/feastdev/feature-server:${FEAST_VERSION}
LABEL org.opencontainers.image.title="feast-registry-feature-server" \
      org.opencontainers.image.description="Feast's feature server, with feast-registry as its registry server" \
      org.opencontainers.image.source="https://github.com/feast-registry/feast-registry" \
      org.opencontainers.image.documentation="https://github.com/feast-registry/feast-registry/blob/main/docs/container.md" \
      org.opencontainers.image.licenses="Apache-2.0"
# The binary, and beside it the link `feast` to it.
COPY --from=registry /usr/local/bin/ /opt/feast-registry/bin/
ENV PATH=/opt/feast-registry/bin:$PATH
# That of Feast's image.
USER 1001
