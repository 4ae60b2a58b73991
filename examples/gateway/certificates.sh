#!/bin/sh
# Makes an authority (once), and certificates that it signs: two for servers and one for a client. For trying out only.
set -eu
mkdir -p certificates
cd certificates

key() { # file
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

issue() { # name, subject alternative name
    key "$1.key.new"
    printf 'subjectAltName=%s\n' "$2" > "$1.ext"
    openssl req -new -key "$1.key.new" -subj "/CN=$1" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -extfile "$1.ext" -out "$1.pem.new" 2>/dev/null
    # Each file is replaced at once, so that nobody sees half of it.
    mv "$1.key.new" "$1.key"
    mv "$1.pem.new" "$1.pem"
    rm "$1.ext"
}

if [ ! -e ca.pem ]; then
    key ca.key
    openssl req -x509 -key ca.key -subj "/CN=an authority for trying out" -days 90 -out ca.pem
fi
issue shop DNS:shop.example
issue blog DNS:blog.example
issue partner URI:spiffe://example.org/partners/one
