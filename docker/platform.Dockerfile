# The image of the web server, the daemon, the code location and MLflow's pages, and of runs.
# Built from the repository's root: docker build -f docker/platform.Dockerfile .
ARG PYTHON=3.11.13
FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /opt/aios
# cpu, or the CUDA of the nodes that train, e.g. cu128.
ARG TORCH=cpu
ENV UV_TORCH_BACKEND=${TORCH} UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
# Extras of this deployment, e.g. "--extra k8s --extra s3".
ARG EXTRAS=""
RUN python -m venv /opt/aios/venv
RUN /opt/aios/venv/bin/pip install --no-cache-dir uv==0.13.9
COPY requirements.lock ./
RUN /opt/aios/venv/bin/uv pip install --no-cache --python /opt/aios/venv/bin/python -r requirements.lock
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml ./
COPY aios_platform aios_platform
COPY feature_repo feature_repo
COPY docker/dagster docker/dagster
COPY docker/workspace.yaml docker/workspace.yaml
RUN /opt/aios/venv/bin/uv pip install --no-cache --python /opt/aios/venv/bin/python --no-deps --editable .
RUN test -z "${EXTRAS}" || /opt/aios/venv/bin/uv pip install --no-cache --python /opt/aios/venv/bin/python \
    --constraint requirements.lock ${EXTRAS} -r pyproject.toml

FROM python:${PYTHON}-slim-bookworm
RUN useradd --uid 10001 --create-home aios && install -d -o aios -g aios /var/lib/aios
COPY --from=build /opt/aios /opt/aios
WORKDIR /opt/aios
USER 10001
ENV PATH=/opt/aios/venv/bin:$PATH \
    AIOS_HOME=/var/lib/aios \
    AIOS_PROFILE=team \
    DAGSTER_HOME=/var/lib/aios/dagster \
    DAGSTER_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/aios
ENTRYPOINT ["aios"]
CMD ["--help"]
