// Which adapter a request names, so that nginx sends it where the adapter is in use.

// In nginx's own variables: `model` is hashed, `overtone_base` is the base's name.
function place(r) {
    r.variables.overtone_model = adapter(r);
    r.internalRedirect('@generate');
}

function adapter(r) {
    var given = r.headersIn['X-Overtone-Adapter'] || model(r.requestText);
    var name = given.split('@')[0]; // versions of one adapter share a server
    return name === r.variables.overtone_base ? '' : name; // every server has the base
}

// The server says what is wrong with a body, so anything may stand in it here.
function model(body) {
    try {
        var parsed = JSON.parse(body);
        return parsed !== null && typeof parsed.model === 'string' ? parsed.model : '';
    } catch (e) {
        return '';
    }
}

export default { place };
