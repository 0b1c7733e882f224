# Query and change a SQLite database: mcp-server-sqlite 2025.4.25 (pypi).
FROM python:3.11-slim
ENV PYTHONPATH="/opt/server"
ENV PYTHONUNBUFFERED="1"
ENV HOME="/tmp"
RUN pip install --target /opt/server --only-binary=:all: mcp-server-sqlite==2025.4.25 mcp==1.30.0 --no-cache-dir
RUN mkdir -p /data && chown 1001:1001 /data
WORKDIR /data
USER 1001:1001
ENTRYPOINT ["python3","/opt/server/bin/mcp-server-sqlite"]
CMD ["--db-path","/data/main.db"]
