# The gateway's image: no Dagster, no torch, no MLflow.
# Built from the repository's root: docker build -f docker/gateway.Dockerfile .
ARG PYTHON=3.11.13
FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /opt/aios
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN python -m venv /opt/aios/venv
RUN /opt/aios/venv/bin/pip install --no-cache-dir uv==0.13.9
COPY docker/gateway.lock docker/gateway.lock
RUN /opt/aios/venv/bin/uv pip install --no-cache --python /opt/aios/venv/bin/python -r docker/gateway.lock
COPY pyproject.toml README.md LICENSE ./
COPY aios_platform aios_platform
COPY feature_repo feature_repo
RUN /opt/aios/venv/bin/uv pip install --no-cache --python /opt/aios/venv/bin/python --no-deps --editable .

FROM python:${PYTHON}-slim-bookworm
RUN useradd --uid 10001 --create-home aios && install -d -o aios -g aios /var/lib/aios
COPY --from=build /opt/aios /opt/aios
WORKDIR /opt/aios
USER 10001
ENV PATH=/opt/aios/venv/bin:$PATH \
    AIOS_HOME=/var/lib/aios \
    AIOS_PROFILE=team \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/aios
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["aios"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
