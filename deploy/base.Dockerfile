# A base for ../Dockerfile that is Airflow on plain Python, with the drivers for PostgreSQL and nothing else:
#
#   docker build -f deploy/base.Dockerfile -t airflow-base .
#   docker build --build-arg BASE=airflow-base -t airflow-nats-executor:dev .
ARG PYTHON=python:3.12-slim

FROM ${PYTHON}
# The places and the user of the official image, so that either may be the base.
ENV AIRFLOW_HOME=/opt/airflow VIRTUAL_ENV=/home/airflow/.local PATH=/home/airflow/.local/bin:${PATH} PYTHONUNBUFFERED=1
RUN useradd --uid 50000 --gid 0 --create-home airflow && install -d -o 50000 -g 0 -m 775 ${AIRFLOW_HOME} ${AIRFLOW_HOME}/logs
USER 50000:0
WORKDIR ${AIRFLOW_HOME}
COPY requirements.lock /tmp/requirements.lock
# uv installs the lock's versions of these and of all that they need, and checks their hashes.
RUN python3 -m venv ${VIRTUAL_ENV} && python3 -m venv /tmp/tools \
    && awk '/^uv==/ { p = 1 } p { print } p && !/\\$/ { exit }' /tmp/requirements.lock > /tmp/uv.lock \
    && /tmp/tools/bin/pip install -q --no-cache-dir --require-hashes -r /tmp/uv.lock \
    && /tmp/tools/bin/uv pip install -q --no-cache --compile-bytecode -p ${VIRTUAL_ENV} \
        -c /tmp/requirements.lock apache-airflow asyncpg psycopg2-binary \
    && rm -rf /tmp/tools /tmp/uv.lock
