import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The JDK's HttpClient with its defaults: every first request of a connection offers h2c. */
public class JavaHttpClient {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    private final String url;
    private final Path folder;

    private JavaHttpClient(String url, Path folder) {
        this.url = url;
        this.folder = folder;
    }

    public static void main(String[] arguments) throws Exception {
        JavaHttpClient asking = new JavaHttpClient(arguments[0], Path.of(arguments[1]));
        List<String> raw = new ArrayList<>();
        raw.add(entry("completion", asking.post("/v1/completions", "completion")));
        raw.add(entry("chat", asking.post("/v1/chat/completions", "chat")));
        raw.add(entry("stream", asking.stream()));
        raw.add(entry("error", asking.post("/v1/completions", "error")));
        raw.add(entry("long", asking.post("/v1/completions", "long")));
        raw.add(entry("upload", asking.upload()));
        String client = quoted("HttpClient of Java " + Runtime.version());
        System.out.println("{\"client\": " + client + ", \"raw\": {" + String.join(", ", raw) + "}}");
    }

    private HttpRequest request(String path, String type, BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(url + path))
                .timeout(Duration.ofSeconds(60))
                .header("Content-Type", type)
                .POST(body)
                .build();
    }

    private HttpRequest json(String path, String name) throws Exception {
        return request(path, "application/json", BodyPublishers.ofFile(folder.resolve(name + ".json")));
    }

    private HttpResponse<String> post(String path, String name) throws Exception {
        return CLIENT.send(json(path, name), BodyHandlers.ofString());
    }

    private String[] stream() throws Exception {
        HttpResponse<Stream<String>> answer =
                CLIENT.send(json("/v1/chat/completions", "stream"), BodyHandlers.ofLines());
        String lines = answer.body().collect(Collectors.joining("\n"));
        return new String[] {String.valueOf(answer.statusCode()), lines};
    }

    private HttpResponse<String> upload() throws Exception {
        ByteArrayOutputStream form = new ByteArrayOutputStream();
        form.write(("--cut\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n"
                + "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"training.jsonl\""
                + "\r\n\r\n").getBytes(StandardCharsets.UTF_8));
        form.write(Files.readAllBytes(folder.resolve("training.jsonl")));
        form.write("\r\n--cut--\r\n".getBytes(StandardCharsets.UTF_8));
        BodyPublisher body = BodyPublishers.ofByteArray(form.toByteArray());
        String type = "multipart/form-data; boundary=cut";
        return CLIENT.send(request("/v1/files", type, body), BodyHandlers.ofString());
    }

    private static String entry(String name, HttpResponse<String> answer) {
        return entry(name, new String[] {String.valueOf(answer.statusCode()), answer.body()});
    }

    private static String entry(String name, String[] answer) {
        return quoted(name) + ": [" + answer[0] + ", " + quoted(answer[1]) + "]";
    }

    private static String quoted(String text) {
        StringBuilder written = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            written.append(c < 0x20 || c == '"' || c == '\\' || c > 0x7e
                    ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return written.append('"').toString();
    }
}
