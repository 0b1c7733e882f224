# A graph of what was learned, kept in a file: @modelcontextprotocol/server-memory 2026.8.31 (npm).
FROM node:24-slim
ENV NODE_ENV="production"
ENV HOME="/tmp"
ENV MEMORY_FILE_PATH="/data/memory.jsonl"
RUN npm install --prefix /opt/server --omit=dev --ignore-scripts --no-audit --no-fund @modelcontextprotocol/server-memory@2026.8.31 --cache /tmp/npm && rm -rf /tmp/npm
RUN mkdir -p /data && chown 1001:1001 /data
WORKDIR /data
USER 1001:1001
ENTRYPOINT ["node","/opt/server/node_modules/.bin/mcp-server-memory"]
CMD []
