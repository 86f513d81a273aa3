# One image for every component; by default it runs a worker.
#
#   docker build -t airflow-nats-executor:dev .
#   docker run airflow-nats-executor:dev nats worker -q default -c 16
#   docker run --no-healthcheck airflow-nats-executor:dev scheduler
#
# The base is any image with Airflow in /home/airflow/.local and a user 50000 that owns it: the official one, the official
# one without providers (apache/airflow:slim-3.3.2-python3.12), or deploy/base.Dockerfile, a plain Python with Airflow.
ARG BASE=apache/airflow:3.3.2-python3.12

FROM ${BASE} AS build
USER 50000:0
WORKDIR /tmp/source
COPY --chown=50000:0 . .
# Only packages that the base lacks, from the lock: the base's own keep the version that it was tested with. Every package
# is checked against its hash, and every build has the same result.
ENV SOURCE_DATE_EPOCH=315532800
RUN umask 002 \
    && pinned() { awk -v start="^$1==" '$0 ~ start { p = 1 } p { print } p && !/\\$/ { exit }' requirements.lock; } \
    && has() { python -c "import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])" "$1" 2>/dev/null; } \
    && for name in hatchling hatch-fancy-pypi-readme packaging pathspec pluggy trove-classifiers; do pinned $name; done > /tmp/build.lock \
    && for name in msgpack nats-py nkeys prometheus-client pynacl setproctitle; do \
        has $name || pinned $name; \
    done > /tmp/added.lock \
    && python -m venv /tmp/tools \
    && /tmp/tools/bin/pip install -q --no-cache-dir --no-deps --require-hashes -r /tmp/build.lock \
    && /tmp/tools/bin/pip wheel -q --no-cache-dir --no-deps --no-build-isolation -w /tmp/wheels . \
    && if [ -s /tmp/added.lock ]; then \
        pip wheel -q --no-cache-dir --no-deps --require-hashes -w /tmp/wheels -r /tmp/added.lock; \
    fi \
    && pip install -q --no-cache-dir --no-deps --no-index --no-compile --root /tmp/added /tmp/wheels/*.whl \
    && site=/tmp/added$(python -c "import site; print(site.getsitepackages()[0])") \
    && PYTHONPATH=$site python -c "import msgpack, nats, nkeys, prometheus_client, setproctitle, airflow_nats_executor, nats_executor.provider, nats_worker" \
    && find /tmp/added -name __pycache__ -exec rm -r {} + \
    && python -m compileall -q --invalidation-mode checked-hash -s /tmp/added /tmp/added \
    && find /tmp/added -exec touch -h -d @${SOURCE_DATE_EPOCH} {} +

FROM ${BASE}
ARG BASE
LABEL org.opencontainers.image.title=airflow-nats-executor org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.base.name=${BASE}
COPY --from=build --chown=50000:0 /tmp/added/home/airflow/.local /home/airflow/.local
USER 50000:0
# A port of the container's own, so that no other process needs it. Without it the check below would have nothing to ask.
ENV AIRFLOW__NATS_EXECUTOR__HEALTH_PORT=8080
# Whether the worker moves, not whether it is ready: an orchestrator may restart an unhealthy container, and must not restart
# a worker that waits for NATS or drains. Other components need a check of their own, or none.
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 CMD ["python", "-P", "-m", "nats_worker.healthcheck", "/livez"]
# No shell and no init in between: a stop reaches the worker alone, which drains before it stops its tasks. (The official
# image's entrypoint would send it to the tasks as well.) The fork server adopts and reaps what tasks leave behind.
ENTRYPOINT ["airflow"]
CMD ["nats", "worker"]
