# One image for the web server, the daemon, the code location and MLflow's pages.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 10001 aios
WORKDIR /opt/aios
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir uv==0.13.9 && uv pip install --system --no-cache -r requirements.lock
COPY aios_platform aios_platform
COPY feature_repo feature_repo
COPY workspace.yaml dagster.yaml ./
RUN uv pip install --system --no-cache --no-deps --editable . \
    && mkdir /var/lib/aios && chown aios:aios /var/lib/aios
USER aios
ENV AIOS_HOME=/var/lib/aios DAGSTER_HOME=/var/lib/aios/dagster DAGSTER_DISABLE_TELEMETRY=1
VOLUME /var/lib/aios
CMD ["aios", "--help"]
