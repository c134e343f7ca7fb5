# Bridge, monitor and replay: no bentoml, no model library. Three targets; `replay` reads parquet too.
FROM python:3.11-slim AS packages
COPY pyproject.toml constraints.txt configs/docker/requirements.py configs/docker/slim.py /build/
RUN python /build/requirements.py streaming >/build/requirements.txt \
 && python -m venv /app/.venv \
 && /app/.venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      -c /build/constraints.txt -r /build/requirements.txt

FROM packages AS bridge-packages
RUN /app/.venv/bin/python /build/slim.py /app/.venv

FROM packages AS replay-packages
RUN python /build/requirements.py parquet >/build/requirements.txt \
 && /app/.venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      -c /build/constraints.txt -r /build/requirements.txt \
 && /app/.venv/bin/python /build/slim.py /app/.venv

FROM python:3.11-slim AS base
RUN groupadd --gid 1034 streaming && useradd --uid 1034 --gid 1034 --create-home streaming \
 && install -d -o streaming -g streaming /state
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 LC_ALL=C.UTF-8
WORKDIR /app
USER streaming
ENTRYPOINT ["python", "-m", "streaming"]

FROM base AS replay
COPY --from=replay-packages /app/.venv /app/.venv
COPY configs/streaming.yaml /app/configs/
COPY streaming /app/streaming
CMD ["replay"]

FROM base AS monitor
COPY --from=bridge-packages /app/.venv /app/.venv
COPY configs/streaming.yaml /app/configs/
COPY configs/docker/healthcheck.py /app/configs/docker/
COPY streaming /app/streaming
ENV STREAMING__MONITOR__HOST=0.0.0.0 STREAMING__MONITOR__STATE=/state
EXPOSE 9465
VOLUME /state
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-S", "/app/configs/docker/healthcheck.py", "9465"]
CMD ["monitor"]

FROM base AS bridge
COPY --from=bridge-packages /app/.venv /app/.venv
COPY configs/streaming.yaml configs/streaming-shadow.yaml /app/configs/
COPY configs/docker/healthcheck.py /app/configs/docker/
COPY streaming /app/streaming
# The loopback address, the default, would not be reachable from outside the container.
ENV STREAMING__METRICS__HOST=0.0.0.0
EXPOSE 9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-S", "/app/configs/docker/healthcheck.py", "9464"]
CMD ["bridge"]
