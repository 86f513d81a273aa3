# Stands in for the official PostgreSQL image, as far as deploy/compose.yaml uses it.
FROM stand-in/debian
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends postgresql >/dev/null \
    && rm -rf /var/lib/apt/lists/* && ln -s /usr/lib/postgresql/*/bin/pg_isready /usr/local/bin/
ENV PGDATA=/var/lib/postgresql/data
COPY postgres-entrypoint /docker-entrypoint
ENTRYPOINT ["/docker-entrypoint"]
CMD ["postgres"]
