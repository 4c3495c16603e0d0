# One image with every binary of the mesh; a container's command says which one it is.
#
#   docker build -t meshwork .
#   docker run --rm meshwork meshwork-order --help

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bins \
    -p meshwork-cli -p meshwork-registry -p meshwork-customer -p meshwork-order -p meshwork-query \
    && mkdir /out \
    && cp target/release/meshwork target/release/meshwork-registry target/release/meshwork-customer \
        target/release/meshwork-order target/release/meshwork-query /out/ \
    && strip --strip-debug /out/*

FROM debian:bookworm-slim
# The authorities that sign the certificate of a database, if it is reached over TLS.
# Not pinned: a newer list of authorities is a better one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A home for what a process may lose: its private view, and the endpoints that it knew last.
# Certificates are mounted, each in a volume of its own, below /tls: a new volume takes its owner from here.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/meshwork meshwork \
    && install -d -o 10001 -g 10001 -m 0700 \
        /tls/ca /tls/registry /tls/customer /tls/order /tls/query /tls/operator
COPY --from=build /out/ /usr/local/bin/
# By number, so that an orchestrator can tell that it is not root.
USER 10001
WORKDIR /var/lib/meshwork
# No shell in between: the binary is process 1, and SIGTERM drains it.
CMD ["meshwork", "--help"]
