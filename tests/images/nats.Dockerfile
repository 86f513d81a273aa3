# Stands in for the official NATS image on Alpine, whose wget is busybox's as well.
FROM stand-in/debian
RUN ln -s /bin/busybox /usr/local/bin/wget
COPY nats-server /usr/local/bin/
COPY nats-entrypoint /docker-entrypoint
EXPOSE 4222 6222 8222
ENTRYPOINT ["/docker-entrypoint"]
