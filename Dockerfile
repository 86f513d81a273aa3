# One image for every component; what it runs by default is a worker.
#
#   docker build -t airflow-nats-executor:dev .
#   docker run airflow-nats-executor:dev nats worker -q default -c 16
#   docker run airflow-nats-executor:dev scheduler
#
# The base is any image with Airflow, pip and a user 50000 that may install packages: the official one, the official
# one without providers (apache/airflow:slim-3.3.2-python3.12), or deploy/base.Dockerfile, a plain Python with Airflow.
ARG BASE=apache/airflow:3.3.2-python3.12

FROM ${BASE} AS build
WORKDIR /tmp/source
COPY . .
# Of the lock only what an Airflow image lacks: Airflow's own dependencies stay those it was tested with.
RUN awk '/^(msgpack|nats-py|nkeys|prometheus-client|pynacl)==/ { p = 1 } p { print } p && !/\\$/ { p = 0 }' requirements.lock \
        > /tmp/added.lock \
    && pip wheel --no-cache-dir --no-deps --require-hashes -w /tmp/wheels -r /tmp/added.lock \
    && pip wheel --no-cache-dir --no-deps -w /tmp/wheels .

FROM ${BASE}
COPY --from=build /tmp/wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps /tmp/wheels/*.whl \
    && python -c "import msgpack, nats, nkeys, prometheus_client, nats_executor.provider, nats_worker"
USER 50000:0
# No shell and no init in between: a stop reaches the worker alone, which drains before it stops its tasks. (The official
# image's entrypoint would send it to the tasks as well.) The fork server adopts and reaps what tasks leave behind.
ENTRYPOINT ["airflow"]
CMD ["nats", "worker"]
