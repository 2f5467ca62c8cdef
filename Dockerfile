# Copyright The leasefs Authors.
# SPDX-License-Identifier: Apache-2.0
#
# The image is the program, the certificate authorities that it trusts unless a connection says otherwise, and nothing
# else: no shell, no mount(8), no package to patch. Build it with
#
#   docker build --build-arg VERSION=v1.2.3 --build-arg REVISION=$(git rev-parse HEAD) -t leasefs:v1.2.3 .

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
ARG TARGETOS TARGETARCH
ARG VERSION=dev
ARG REVISION=
WORKDIR /src
# The modules change less often than the code: a layer of their own.
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
# Two builds of one commit are equal to the byte: no paths of the build machine, no time, no C.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
	-ldflags "-s -w -X main.version=$VERSION -X main.commit=$REVISION" -o /leasefs ./cmd/driver

FROM scratch
ARG VERSION=dev
ARG REVISION=
LABEL org.opencontainers.image.title="leasefs" \
	org.opencontainers.image.description="Vault secrets on a tmpfs of the pod's own, kept true" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="$VERSION" \
	org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /leasefs /leasefs
# Mounting takes root and CAP_SYS_ADMIN.
USER 0:0
ENTRYPOINT ["/leasefs"]
