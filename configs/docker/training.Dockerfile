# Training and the MLflow server: the only image with torch, as a CPU build, which spares 3 GB. Where that index
# cannot be reached pip takes what it finds; empty it for a build with CUDA.
FROM python:3.11-slim AS packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt configs/docker/requirements.py configs/docker/slim.py /build/
RUN python -m venv /app/.venv \
 && python /build/requirements.py training >/build/requirements.txt \
 && /app/.venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --retries 1 \
      -c /build/constraints.txt ${TORCH_INDEX:+--extra-index-url} ${TORCH_INDEX} torch \
 && /app/.venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      -c /build/constraints.txt -r /build/requirements.txt \
 && /app/.venv/bin/python /build/slim.py /app/.venv

FROM python:3.11-slim
# The service's number: it reads the model store that this image writes.
RUN groupadd --gid 1034 training && useradd --uid 1034 --gid 1034 --create-home training \
 && install -d -m 1777 /bentoml \
 && install -d -o training -g training /mlflow /app/data /bentoml/models
COPY --from=packages /app/.venv /app/.venv
COPY configs/training.yaml /app/configs/
COPY configs/docker/healthcheck.py configs/docker/first-release.sh /app/configs/docker/
COPY training /app/training
# Writable are only the volumes and /tmp.
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    BENTOML_HOME=/bentoml \
    BENTOML_DO_NOT_TRACK=True \
    GIT_PYTHON_REFRESH=quiet \
    PYTHONUNBUFFERED=1 \
    LC_ALL=C.UTF-8
WORKDIR /app
USER training
EXPOSE 5000
ENTRYPOINT ["python", "-m", "training"]
