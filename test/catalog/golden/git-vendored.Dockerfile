# Read and change Git repositories: mcp-server-git 2026.10.19 (pypi).
FROM python:3.11-slim
ENV PYTHONPATH="/opt/server"
ENV PYTHONUNBUFFERED="1"
ENV HOME="/tmp"
ENV GIT_CONFIG_COUNT="1"
ENV GIT_CONFIG_KEY_0="safe.directory"
ENV GIT_CONFIG_VALUE_0="*"
COPY server /opt/server
RUN mkdir -p /data && chown 1001:1001 /data
WORKDIR /data
USER 1001:1001
ENTRYPOINT ["python3","/opt/server/bin/mcp-server-git"]
CMD []
