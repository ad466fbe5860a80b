fn main() {
    let args: Vec<String> = std::env::args().collect();
    let store = std::path::Path::new("/run/onggi");
    let mut go = || -> libruntime::Result<()> {
        let container = libruntime::create(&libruntime::Create::new(store, &args[2], std::path::Path::new(&args[1])))?;
        container.start()?;
        println!("{:?}", container.wait()?);
        container.delete(false)
    };
    if let Err(error) = go() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
