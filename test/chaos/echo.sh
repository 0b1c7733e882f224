# An MCP server in the shell of busybox, so that a container of it costs no more than a container.
while IFS= read -r line; do
  case $line in *'"id":'*) ;; *) continue ;; esac
  id=${line#*'"id":'} id=${id%%[,\}]*}
  case $line in
    *'"initialize"'*)
      info='"capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}'
      result="{\"protocolVersion\":\"2025-11-25\",$info}" ;;
    *'"tools/call"'*)
      text=${line##*'"message":"'}
      result="{\"content\":[{\"type\":\"text\",\"text\":\"Echo: ${text%%\"*}\"}]}" ;;
    *) result='{}' ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
