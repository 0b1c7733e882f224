# Read and change Git repositories: mcp-server-git 2026.10.19 (pypi).
FROM python:3.11-slim
ENV PYTHONPATH="/opt/server"
ENV PYTHONUNBUFFERED="1"
ENV HOME="/tmp"
ENV GIT_CONFIG_COUNT="1"
ENV GIT_CONFIG_KEY_0="safe.directory"
ENV GIT_CONFIG_VALUE_0="*"
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN pip install --target /opt/server --only-binary=:all: mcp-server-git==2026.10.19 mcp==2.3.0 --no-cache-dir
RUN mkdir -p /data && chown 1001:1001 /data
WORKDIR /data
USER 1001:1001
ENTRYPOINT ["python3","/opt/server/bin/mcp-server-git"]
CMD []
