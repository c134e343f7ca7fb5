# The service without a release inside: docker-compose mounts the model store that training fills.
# The bento's own image (bento.Dockerfile.j2) carries its release; both install the same packages.
FROM python:3.11-slim AS packages
COPY pyproject.toml constraints.txt configs/docker/requirements.py configs/docker/slim.py /build/
RUN python /build/requirements.py serving >/build/requirements.txt \
 && python -m venv /app/.venv \
 && /app/.venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      -c /build/constraints.txt -r /build/requirements.txt \
 && /app/.venv/bin/python /build/slim.py /app/.venv

FROM python:3.11-slim
# /bentoml: where docker-compose mounts the store, below a temporary file system that takes over this mode.
RUN groupadd --gid 1034 bentoml && useradd --uid 1034 --gid 1034 --create-home bentoml \
 && install -d -m 1777 /bentoml && install -d -o bentoml -g bentoml /bentoml/models
COPY --from=packages /app/.venv /app/.venv
COPY bentofile.yaml /app/
COPY configs/serving.yaml /app/configs/
COPY configs/docker/healthcheck.py /app/configs/docker/
COPY bentos /app/bentos
# Everything written while serving (sockets, metrics) goes to /tmp: the root file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH \
    BENTOML_HOME=/tmp/bentoml \
    BENTOML_CONTAINERIZED=true \
    BENTOML_DO_NOT_TRACK=True \
    PYTHONUNBUFFERED=1 \
    LC_ALL=C.UTF-8
WORKDIR /app
USER bentoml
EXPOSE 3000
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-S", "/app/configs/docker/healthcheck.py", "3000"]
ENTRYPOINT ["bentoml", "serve", "bentos.service:FraudDetection"]
